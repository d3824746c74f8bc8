"""Bearer keys."""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table; nobody has a key yet."""
    op.create_table(
        "api_keys",
        sa.Column("row", Integers, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("secret_hash", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("create_time_s", sa.Float, nullable=False),
        sa.Column("expire_time_s", sa.Float),
        sa.Column("revoke_time_s", sa.Float),
        sa.Column("revision", Integers, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("api_keys_revision", "api_keys", ["revision"])


def downgrade() -> None:
    """Without the table, nobody could be refused."""
    raise NotImplementedError("keys are not taken away again")
