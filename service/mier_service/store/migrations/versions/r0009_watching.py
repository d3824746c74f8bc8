"""Which request a fine-tune was asked for by, and in which trace; and a row to try whether the store can be written."""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Fine-tunes of before were asked for by requests that nobody remembers."""
    op.add_column("operations", sa.Column("request_id", sa.Text))
    op.add_column("operations", sa.Column("trace_context", sa.Text))
    op.create_table(
        "probe",
        sa.Column("row", Integers, primary_key=True),
        sa.Column("time_s", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Back would lose nothing, but no release needs it."""
    raise NotImplementedError("there is no way back but a restored backup")
