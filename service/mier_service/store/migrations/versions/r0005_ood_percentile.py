"""Where a task lies among those of the training distribution."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Contexts of before were not compared."""
    op.add_column("model_contexts", sa.Column("ood_percentile", sa.Float))


def downgrade() -> None:
    """Back would lose what robots were told."""
    raise NotImplementedError("percentiles are not taken away again")
