"""The tables: everything that a crash must not lose. Migrations bring a database here; a test compares the two.

    sessions ─┬─ model_contexts      (session_id, number)              immutable
              ├─ versions            (session_id, number)              immutable; weights are files named by hash
              ├─ promotions          which version acted, by whom, why append-only (a trigger refuses updates)
              ├─ transition_batches  (session_id, episode, first_step) append-only; ranges never overlap
              ├─ shadows             (session_id, version)             candidates that act in shadow before they act
              ├─ episode_returns     (session_id, episode)             what an episode came to; final once it is whole
              └─ operations          fenced by lease_token
    probe                            one row, written to see whether it can be
    data_folder                      one row: the folder that the files are in
    idempotency_keys                 outlive their session
    key_usage                        (owner, session_id)               what a key has stored, and its last turn
    api_keys                         never removed; name a session that may be gone

Times are UTC seconds since the epoch. Vectors are little-endian float32 blobs.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

Integers = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits in both; SQLite numbers rows by itself only where the type is called INTEGER."""


def _of_session() -> ForeignKey:
    return ForeignKey("sessions.id", ondelete="CASCADE")


sessions = Table(
    "sessions",
    metadata,
    # Creation order, never reused: the cursor of pages.
    Column("row", Integers, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("checkpoint", Text, nullable=False),
    Column("checkpoint_hash", Text, nullable=False),
    Column("environment_json", Text, nullable=False),
    Column("seed", Integers, nullable=False),
    Column("state", Text, nullable=False),
    Column("active_version", Integers, nullable=False),
    Column("transitions_count", Integers, nullable=False),
    Column("create_time_s", Float, nullable=False),
    # 1: the active version stays until it is unpinned.
    Column("pinned", Integers, nullable=False, server_default="0"),
    # When somebody last used it, to within a sweep: what retention goes by.
    Column("last_used_s", Float, nullable=False, server_default="0"),
    # Whether the context follows the task by itself.
    Column("mode", Text, nullable=False, server_default="off"),
    # 1, and 1 more for each change of the task that was noticed.
    Column("task_number", Integers, nullable=False, server_default="1"),
    # So many transitions, the first in the order of storing, are of earlier tasks.
    Column("task_start", Integers, nullable=False, server_default="0"),
    # Id of the key that opened it.
    Column("owner", Text, nullable=False, server_default="anonymous"),
    Index("sessions_owner", "owner"),
    # What the session declared of acting; null: nothing.
    Column("fallback", Text),
    Column("action_limits_json", Text),
    Column("max_observation_age_ms", Float),
    Column("shadow_json", Text),
    sqlite_autoincrement=True,
)

model_contexts = Table(
    "model_contexts",
    metadata,
    Column("session_id", Text, _of_session(), primary_key=True),
    Column("number", Integers, primary_key=True),
    Column("context", LargeBinary, nullable=False),
    Column("heldout_nll_before", Float),
    Column("heldout_nll_after", Float),
    Column("ood_score", Float),
    Column("transitions_used", Integers, nullable=False),
    Column("window_json", Text),
    Column("create_time_s", Float, nullable=False),
    # 0 to 100; null where the checkpoint had nothing to compare with.
    Column("ood_percentile", Float),
    # `mier.following.Following`, to go on from; null where the context was asked for.
    Column("following_json", Text),
)

versions = Table(
    "versions",
    metadata,
    Column("session_id", Text, _of_session(), primary_key=True),
    Column("number", Integers, primary_key=True),
    Column("parent", Integers, nullable=False),
    Column("weights_hash", Text, nullable=False),
    # SHA-256 of the ONNX file that acts with those weights.
    Column("onnx_hash", Text, nullable=False),
    Column("policy_context", LargeBinary, nullable=False),
    Column("model_context_number", Integers, nullable=False),
    Column("origin", Text, nullable=False),
    Column("promotion", Text, nullable=False),
    Column("operation_id", Text),
    Column("checkpoint_hash", Text, nullable=False),
    Column("transitions_used", Integers, nullable=False),
    Column("seed", Integers),
    Column("configuration_json", Text),
    Column("create_time_s", Float, nullable=False),
    # Name of the checkpoint; `checkpoint_hash` is its identity.
    Column("checkpoint", Text, nullable=False, server_default=""),
    # What the gate saw; null where it did not judge.
    Column("gate_json", Text),
    Index("versions_weights", "weights_hash"),
)

promotions = Table(
    "promotions",
    metadata,
    # Order of happening, never reused: the cursor of pages.
    Column("row", Integers, primary_key=True, autoincrement=True),
    Column("session_id", Text, _of_session(), nullable=False),
    Column("kind", Text, nullable=False),
    # 0 where there was none.
    Column("from_version", Integers, nullable=False),
    Column("to_version", Integers, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("create_time_s", Float, nullable=False),
    Index("promotions_session", "session_id", "row"),
    sqlite_autoincrement=True,
)

transition_batches = Table(
    "transition_batches",
    metadata,
    # Order of storing, never reused: what a window of the newest steps and a fine-tune's snapshot go by.
    Column("row", Integers, primary_key=True, autoincrement=True),
    Column("session_id", Text, _of_session(), nullable=False),
    Column("episode", Integers, nullable=False),
    Column("first_step", Integers, nullable=False),
    Column("count", Integers, nullable=False),
    # float32 [count, 2 * observation_dim + action_dim + 3], see `recording.RowLayout`.
    Column("rows", LargeBinary, nullable=False),
    # int64 [count]
    Column("policy_versions", LargeBinary, nullable=False),
    UniqueConstraint("session_id", "episode", "first_step", name="transition_batches_key"),
    sqlite_autoincrement=True,
)

episode_returns = Table(
    "episode_returns",
    metadata,
    Column("session_id", Text, _of_session(), primary_key=True),
    Column("episode", Integers, primary_key=True),
    # Up to the first one that ended it.
    Column("steps", Integers, nullable=False),
    # Undiscounted; null until every step is there.
    Column("total", Float),
    # So many transitions of the session were stored before its own.
    Column("first_transition", Integers, nullable=False),
    # Of the versions that chose its steps; null where they differ, or none did.
    Column("weights_hash", Text),
    # The version that chose all of them; 0: there is no such one.
    Column("policy_version", Integers, nullable=False),
    Index("episode_returns_weights", "session_id", "weights_hash"),
)

shadows = Table(
    "shadows",
    metadata,
    Column("session_id", Text, _of_session(), primary_key=True),
    Column("version", Integers, primary_key=True),
    Column("state", Text, nullable=False),
    # As the session declared it.
    Column("rule_json", Text, nullable=False),
    # That acted when it began.
    Column("incumbent_version", Integers, nullable=False),
    # float32 [acts], see `mier.shadow`.
    Column("differences", LargeBinary, nullable=False),
    Column("at_limit", Integers, nullable=False),
    Column("acting_at_limit", Integers, nullable=False),
    # Why it ended; empty before.
    Column("reason", Text, nullable=False),
    Column("update_time_s", Float, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("row", Integers, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("session_id", Text, _of_session(), nullable=False),
    Column("state", Text, nullable=False),
    Column("cancel_requested", Integers, nullable=False),
    Column("updates_done", Integers, nullable=False),
    Column("updates_total", Integers, nullable=False),
    Column("metrics_json", Text),
    Column("seed", Integers, nullable=False),
    Column("transitions_used", Integers, nullable=False),
    # The newest transition batch that belongs to its data.
    Column("last_batch_row", Integers, nullable=False),
    Column("start_version", Integers, nullable=False),
    Column("model_context_number", Integers, nullable=False),
    Column("result_version", Integers, nullable=False),
    Column("error_json", Text),
    Column("attempts", Integers, nullable=False),
    # Attempts since the last save: a fine-tune that kills its worker again and again is given up.
    Column("attempts_without_progress", Integers, nullable=False),
    # Grows at each claim. A worker writes only under the token it claimed with (a fencing token).
    Column("lease_token", Integers, nullable=False),
    Column("lease_until_s", Float, nullable=False),
    # SHA-256 of the newest resume save; null before the first.
    Column("save_hash", Text),
    # Grows at each change, so that watchers can tell.
    Column("revision", Integers, nullable=False),
    Column("create_time_s", Float, nullable=False),
    Column("update_time_s", Float, nullable=False),
    # Where its data begin: so many transitions are of earlier tasks.
    Column("first_transition", Integers, nullable=False, server_default="0"),
    # Why the service began it by itself; empty where somebody asked.
    Column("reason", Text, nullable=False, server_default=""),
    # Id of the key that asked for it.
    Column("owner", Text, nullable=False, server_default="anonymous"),
    # The request that asked for it, and its trace as JSON of W3C headers: what a worker's log and spans name.
    Column("request_id", Text),
    Column("trace_context", Text),
    Index("operations_state", "state"),
    Index("operations_session", "session_id"),
    sqlite_autoincrement=True,
)

probe = Table(
    "probe",
    metadata,
    Column("row", Integers, primary_key=True),
    Column("time_s", Float, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("call", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("reply_json", Text, nullable=False),
    Column("create_time_s", Float, nullable=False),
    # Id of the key that it counts for; empty for what was kept before that was counted.
    Column("owner", Text, nullable=False, server_default=""),
    Column("stored_bytes", Integers, nullable=False, server_default="0"),
    Index("idempotency_keys_age", "create_time_s"),
)

key_usage = Table(
    "key_usage",
    metadata,
    Column("owner", Text, primary_key=True),
    # Empty: of the key itself. No foreign key, for that row's sake.
    Column("session_id", Text, primary_key=True),
    Column("stored_bytes", Integers, nullable=False),
    # Grows with each turn of any key; 0: it had none.
    Column("turn", Integers, nullable=False),
    Index("key_usage_session", "session_id"),
    # Rows lie in the order of keys, so that a sum over one key reads them one after another.
    sqlite_with_rowid=False,
)

api_keys = Table(
    "api_keys",
    metadata,
    # Creation order.
    Column("row", Integers, primary_key=True, autoincrement=True),
    # The public part of the key.
    Column("id", Text, nullable=False, unique=True),
    # SHA-256 of the whole key: a high-entropy secret needs no slow hash (ADR 0010).
    Column("secret_hash", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("name", Text, nullable=False),
    # The only session it sees and touches; null: all.
    Column("session_id", Text),
    Column("create_time_s", Float, nullable=False),
    Column("expire_time_s", Float),
    Column("revoke_time_s", Float),
    # Grows at each change of any key, so that the service can tell.
    Column("revision", Integers, nullable=False),
    Index("api_keys_revision", "revision"),
    sqlite_autoincrement=True,
)

data_folder = Table(
    "data_folder",
    metadata,
    # What the folder's own mark says; no row before the first start.
    Column("id", Text, primary_key=True),
)
