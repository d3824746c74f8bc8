"""Returns of whole episodes, by the weights that chose every step of them."""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Episodes of before are not counted: what acts was not watched by them either."""
    op.create_table(
        "episode_returns",
        sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("episode", Integers, primary_key=True),
        sa.Column("steps", Integers, nullable=False),
        sa.Column("total", sa.Float),
        sa.Column("first_transition", Integers, nullable=False),
        sa.Column("weights_hash", sa.Text),
        sa.Column("policy_version", Integers, nullable=False),
    )
    op.create_index("episode_returns_weights", "episode_returns", ["session_id", "weights_hash"])


def downgrade() -> None:
    """Back would lose what each version was worth."""
    raise NotImplementedError("returns are not taken away again")
