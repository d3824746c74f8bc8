"""What contexts and versions were made from and with, and digests of transitions: so that they can be made again."""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0013"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of what is there already nobody knows it: null."""
    op.add_column("model_contexts", sa.Column("origin_json", sa.Text))
    op.add_column("versions", sa.Column("first_transition", Integers))
    op.add_column("versions", sa.Column("made_with_json", sa.Text))
    op.add_column("operations", sa.Column("made_with_json", sa.Text))
    op.add_column("transition_batches", sa.Column("sha256", sa.Text))


def downgrade() -> None:
    """Back would lose what cannot be found out again."""
    raise NotImplementedError("there is no way back but a restored backup")
