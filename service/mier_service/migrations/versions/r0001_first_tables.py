"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "sessions",
        sa.Column("row", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("checkpoint", sa.Text, nullable=False),
        sa.Column("checkpoint_hash", sa.Text, nullable=False),
        sa.Column("environment_json", sa.Text, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("active_version", sa.Integer, nullable=False),
        sa.Column("transitions_count", sa.Integer, nullable=False),
        sa.Column("create_time_s", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "model_contexts",
        sa.Column("session_id", sa.Text, _of_session(), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("context", sa.LargeBinary, nullable=False),
        sa.Column("heldout_nll_before", sa.Float),
        sa.Column("heldout_nll_after", sa.Float),
        sa.Column("ood_score", sa.Float),
        sa.Column("transitions_used", sa.Integer, nullable=False),
        sa.Column("window_json", sa.Text),
        sa.Column("create_time_s", sa.Float, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("session_id", sa.Text, _of_session(), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("parent", sa.Integer, nullable=False),
        sa.Column("weights_hash", sa.Text, nullable=False),
        sa.Column("onnx_hash", sa.Text, nullable=False),
        sa.Column("policy_context", sa.LargeBinary, nullable=False),
        sa.Column("model_context_number", sa.Integer, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("promotion", sa.Text, nullable=False),
        sa.Column("operation_id", sa.Text),
        sa.Column("checkpoint_hash", sa.Text, nullable=False),
        sa.Column("transitions_used", sa.Integer, nullable=False),
        sa.Column("seed", sa.Integer),
        sa.Column("configuration_json", sa.Text),
        sa.Column("create_time_s", sa.Float, nullable=False),
    )
    op.create_index("versions_weights", "versions", ["weights_hash"])
    op.create_table(
        "transition_batches",
        sa.Column("row", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.Text, _of_session(), nullable=False),
        sa.Column("episode", sa.Integer, nullable=False),
        sa.Column("first_step", sa.Integer, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("rows", sa.LargeBinary, nullable=False),
        sa.Column("policy_versions", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("session_id", "episode", "first_step", name="transition_batches_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "operations",
        sa.Column("row", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("session_id", sa.Text, _of_session(), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("cancel_requested", sa.Integer, nullable=False),
        sa.Column("updates_done", sa.Integer, nullable=False),
        sa.Column("updates_total", sa.Integer, nullable=False),
        sa.Column("metrics_json", sa.Text),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("transitions_used", sa.Integer, nullable=False),
        sa.Column("last_batch_row", sa.Integer, nullable=False),
        sa.Column("start_version", sa.Integer, nullable=False),
        sa.Column("model_context_number", sa.Integer, nullable=False),
        sa.Column("result_version", sa.Integer, nullable=False),
        sa.Column("error_json", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("attempts_without_progress", sa.Integer, nullable=False),
        sa.Column("lease_token", sa.Integer, nullable=False),
        sa.Column("lease_until_s", sa.Float, nullable=False),
        sa.Column("save_hash", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False),
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
