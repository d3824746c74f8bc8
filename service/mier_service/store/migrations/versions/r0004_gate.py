"""What the gate saw of a fine-tuned version."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Versions of before were not judged."""
    op.add_column("versions", sa.Column("gate_json", sa.Text))


def downgrade() -> None:
    """Back would lose why versions act."""
    raise NotImplementedError("what the gate saw is not taken away again")
