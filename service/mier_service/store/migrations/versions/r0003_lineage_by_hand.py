"""Lineage by hand: who made which version act and why; pins; checkpoints of versions by name; when a session was used.

Columns are added in place. (Alembic's batch mode copies a table and drops the old one, and on SQLite dropping
`sessions` with foreign keys on deletes everything that belongs to them.)
"""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What the first release did is written down as it was: each version acted from the moment it was published."""
    op.add_column("sessions", sa.Column("pinned", Integers, nullable=False, server_default="0"))
    op.add_column("sessions", sa.Column("last_used_s", sa.Float, nullable=False, server_default="0"))
    op.add_column("versions", sa.Column("checkpoint", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "promotions",
        sa.Column("row", Integers, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("from_version", Integers, nullable=False),
        sa.Column("to_version", Integers, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("create_time_s", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("promotions_session", "promotions", ["session_id", "row"])
    if op.get_bind().dialect.name == "postgresql":
        _append_only_on_postgresql()
        return  # it begins at a release that has this: there are no rows of before
    op.execute(
        "CREATE TRIGGER promotions_append_only BEFORE UPDATE ON promotions "
        "BEGIN SELECT RAISE(ABORT, 'promotions are only ever added'); END"
    )
    op.execute(
        "UPDATE sessions SET last_used_s = max(create_time_s, coalesce("
        "(SELECT max(v.create_time_s) FROM versions v WHERE v.session_id = sessions.id), 0))"
    )
    op.execute(
        "UPDATE versions SET checkpoint = (SELECT s.checkpoint FROM sessions s WHERE s.id = versions.session_id)"
    )
    op.execute(
        "INSERT INTO promotions (session_id, kind, from_version, to_version, who, reason, create_time_s) "
        "SELECT session_id, 'publish', number - 1, number, 'service', '', create_time_s FROM versions "
        "ORDER BY session_id, number"
    )


def _append_only_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION promotions_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'promotions are only ever added' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER promotions_append_only BEFORE UPDATE ON promotions "
        "FOR EACH ROW EXECUTE FUNCTION promotions_append_only()"
    )


def downgrade() -> None:
    """Back would lose who made what act."""
    raise NotImplementedError("the record of promotions is not taken away again")
