"""What a session declares of acting: its fallback, its limits, how old an observation may be."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Sessions of before declared nothing."""
    op.add_column("sessions", sa.Column("fallback", sa.Text))
    op.add_column("sessions", sa.Column("action_limits_json", sa.Text))
    op.add_column("sessions", sa.Column("max_observation_age_ms", sa.Float))


def downgrade() -> None:
    """Back would let actions leave their limits."""
    raise NotImplementedError("what sessions declared is not taken away again")
