"""Whose sessions, fine-tunes and kept replies are; what each key has stored; whose turn it is."""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A session of before is its creator's, as the record of promotions has it; all in it counts for that key, but for
    files (the tables do not know their sizes) and replies that were kept (they are forgotten within a week)."""
    op.add_column("sessions", sa.Column("owner", sa.Text, nullable=False, server_default="anonymous"))
    op.create_index("sessions_owner", "sessions", ["owner"])
    op.add_column("operations", sa.Column("owner", sa.Text, nullable=False, server_default="anonymous"))
    op.add_column("idempotency_keys", sa.Column("owner", sa.Text, nullable=False, server_default=""))
    op.add_column("idempotency_keys", sa.Column("stored_bytes", Integers, nullable=False, server_default="0"))
    op.create_table(
        "key_usage",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column("stored_bytes", Integers, nullable=False),
        sa.Column("turn", Integers, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("key_usage_session", "key_usage", ["session_id"])
    op.execute(
        "UPDATE sessions SET owner = coalesce((SELECT p.who FROM promotions p WHERE p.row = "
        "(SELECT min(q.row) FROM promotions q WHERE q.session_id = sessions.id) AND p.who <> 'service'), 'anonymous')"
    )
    op.execute("UPDATE operations SET owner = (SELECT s.owner FROM sessions s WHERE s.id = operations.session_id)")
    op.execute(
        "INSERT INTO key_usage (owner, session_id, stored_bytes, turn) SELECT s.owner, s.id, 512 * ("
        "(SELECT count(*) FROM model_contexts t WHERE t.session_id = s.id)"
        " + (SELECT count(*) FROM versions t WHERE t.session_id = s.id)"
        " + (SELECT count(*) FROM promotions t WHERE t.session_id = s.id)"
        " + (SELECT count(*) FROM operations t WHERE t.session_id = s.id)"
        " + (SELECT count(*) FROM transition_batches t WHERE t.session_id = s.id)"
        ") + coalesce((SELECT sum(length(t.rows) + length(t.policy_versions)) FROM transition_batches t"
        " WHERE t.session_id = s.id), 0), 0 FROM sessions s"
    )


def downgrade() -> None:
    """Back would lose whose sessions they are."""
    raise NotImplementedError("owners are not taken away again")
