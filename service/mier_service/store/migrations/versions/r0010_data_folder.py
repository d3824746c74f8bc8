"""Which folder holds the files of a store that is not in that folder itself."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The next start writes the row."""
    op.create_table("data_folder", sa.Column("id", sa.Text, primary_key=True))


def downgrade() -> None:
    """Without it, a store could be given the files of another one."""
    raise NotImplementedError("the mark of the folder is not taken away again")
