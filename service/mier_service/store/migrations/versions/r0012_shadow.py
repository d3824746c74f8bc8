"""Candidates that act in shadow before they act: what sessions declare of it, and what was seen."""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Sessions of before declared nothing."""
    op.add_column("sessions", sa.Column("shadow_json", sa.Text))
    op.create_table(
        "shadows",
        sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", Integers, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("rule_json", sa.Text, nullable=False),
        sa.Column("incumbent_version", Integers, nullable=False),
        sa.Column("differences", sa.LargeBinary, nullable=False),
        sa.Column("at_limit", Integers, nullable=False),
        sa.Column("acting_at_limit", Integers, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("update_time_s", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """A candidate in shadow would be lost."""
    raise NotImplementedError("what was seen in shadow is not taken away again")
