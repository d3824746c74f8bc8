"""The table's rows, one file each; a row joins by its line in `ROWS`."""

from mier_bench.row import RowMaker
from mier_bench.rows import (
    act_round_trip,
    adapt_many,
    adapt_one,
    batched_physics,
    control_tick,
    edge_policy,
    meta_training,
    sac_updates,
    streaming,
    throughput,
    under_learning,
)

ROWS: dict[int, RowMaker] = {
    1: act_round_trip.rows,
    2: throughput.rows,
    3: control_tick.rows,
    4: edge_policy.rows,
    5: under_learning.rows,
    6: adapt_one.rows,
    7: streaming.rows,
    8: adapt_many.rows,
    9: sac_updates.rows,
    10: meta_training.rows,
    11: batched_physics.rows,
}
