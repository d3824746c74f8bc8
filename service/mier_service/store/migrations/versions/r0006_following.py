"""Sessions whose context follows the task by itself, and tasks that change in mid-run."""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Sessions of before follow nothing, and are on their first task."""
    op.add_column("sessions", sa.Column("mode", sa.Text, nullable=False, server_default="off"))
    op.add_column("sessions", sa.Column("task_number", Integers, nullable=False, server_default="1"))
    op.add_column("sessions", sa.Column("task_start", Integers, nullable=False, server_default="0"))
    op.add_column("model_contexts", sa.Column("following_json", sa.Text))
    op.add_column("operations", sa.Column("first_transition", Integers, nullable=False, server_default="0"))
    op.add_column("operations", sa.Column("reason", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Back would lose which transitions belong to which task."""
    raise NotImplementedError("tasks are not put together again")
