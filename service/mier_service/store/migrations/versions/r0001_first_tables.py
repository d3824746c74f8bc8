"""The first tables."""

import sqlalchemy as sa
from alembic import op

from mier_service.store.migrations.types import Integers

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "sessions",
        sa.Column("row", Integers, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("checkpoint", sa.Text, nullable=False),
        sa.Column("checkpoint_hash", sa.Text, nullable=False),
        sa.Column("environment_json", sa.Text, nullable=False),
        sa.Column("seed", Integers, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("active_version", Integers, nullable=False),
        sa.Column("transitions_count", Integers, nullable=False),
        sa.Column("create_time_s", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "model_contexts",
        sa.Column("session_id", sa.Text, _of_session(), primary_key=True),
        sa.Column("number", Integers, primary_key=True),
        sa.Column("context", sa.LargeBinary, nullable=False),
        sa.Column("heldout_nll_before", sa.Float),
        sa.Column("heldout_nll_after", sa.Float),
        sa.Column("ood_score", sa.Float),
        sa.Column("transitions_used", Integers, nullable=False),
        sa.Column("window_json", sa.Text),
        sa.Column("create_time_s", sa.Float, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("session_id", sa.Text, _of_session(), primary_key=True),
        sa.Column("number", Integers, primary_key=True),
        sa.Column("parent", Integers, nullable=False),
        sa.Column("weights_hash", sa.Text, nullable=False),
        sa.Column("onnx_hash", sa.Text, nullable=False),
        sa.Column("policy_context", sa.LargeBinary, nullable=False),
        sa.Column("model_context_number", Integers, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("promotion", sa.Text, nullable=False),
        sa.Column("operation_id", sa.Text),
        sa.Column("checkpoint_hash", sa.Text, nullable=False),
        sa.Column("transitions_used", Integers, nullable=False),
        sa.Column("seed", Integers),
        sa.Column("configuration_json", sa.Text),
        sa.Column("create_time_s", sa.Float, nullable=False),
    )
    op.create_index("versions_weights", "versions", ["weights_hash"])
    op.create_table(
        "transition_batches",
        sa.Column("row", Integers, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.Text, _of_session(), nullable=False),
        sa.Column("episode", Integers, nullable=False),
        sa.Column("first_step", Integers, nullable=False),
        sa.Column("count", Integers, nullable=False),
        sa.Column("rows", sa.LargeBinary, nullable=False),
        sa.Column("policy_versions", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("session_id", "episode", "first_step", name="transition_batches_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "operations",
        sa.Column("row", Integers, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("session_id", sa.Text, _of_session(), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("cancel_requested", Integers, nullable=False),
        sa.Column("updates_done", Integers, nullable=False),
        sa.Column("updates_total", Integers, nullable=False),
        sa.Column("metrics_json", sa.Text),
        sa.Column("seed", Integers, nullable=False),
        sa.Column("transitions_used", Integers, nullable=False),
        sa.Column("last_batch_row", Integers, nullable=False),
        sa.Column("start_version", Integers, nullable=False),
        sa.Column("model_context_number", Integers, nullable=False),
        sa.Column("result_version", Integers, nullable=False),
        sa.Column("error_json", sa.Text),
        sa.Column("attempts", Integers, nullable=False),
        sa.Column("attempts_without_progress", Integers, nullable=False),
        sa.Column("lease_token", Integers, nullable=False),
        sa.Column("lease_until_s", sa.Float, nullable=False),
        sa.Column("save_hash", sa.Text),
        sa.Column("revision", Integers, nullable=False),
        sa.Column("create_time_s", sa.Float, nullable=False),
        sa.Column("update_time_s", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("operations_state", "operations", ["state"])
    op.create_index("operations_session", "operations", ["session_id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("call", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("reply_json", sa.Text, nullable=False),
        sa.Column("create_time_s", sa.Float, nullable=False),
    )
    op.create_index("idempotency_keys_age", "idempotency_keys", ["create_time_s"])


def _of_session() -> sa.ForeignKey:
    return sa.ForeignKey("sessions.id", ondelete="CASCADE")


def downgrade() -> None:
    """Back to nothing would lose acknowledged transitions."""
    raise NotImplementedError("the first tables are not taken away again")
