"""The training core, shared by text and vision: a small `Learner`, everything else a callback.

    batches.py     what is asked of the data            callback.py   the events, and the loop as pseudo-code
    params.py      parameter groups, freezing           learner.py    the loop itself
    schedule.py    learning rates over a fit            regularize.py AR, TAR, clipping, carried state
    precision.py   autocast and fp16                    guard.py      a loss that is no number
    losses.py      class weights, label smoothing       multi_label.py several labels a document
    metrics.py     numbers, the history                 progress.py   what is seen while it runs
    checkpoint.py  save and resume                      interrupt.py  Ctrl-C and SIGTERM
    lr_find.py     a learning rate to begin with        phases.py     one cycle after another, resumed
    device.py      CPU or GPU                           memory.py     malloc, told to reuse
    hooks.py       layers that are watched              diagnosis.py  what looks off in them
    plot_layers.py their picture                        tensorboard.py logs for TensorBoard
    parallel.py    several processes                    logistic.py   regression of sparse features

Knows nothing of text, models or tasks.
"""

from .batches import Batch, Batches, FixedBatches, smaller_for_few
from .callback import EVENTS, Callback, CancelBatch, CancelEpoch, CancelFit, CancelStep, DebugCallback
from .checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from .device import pick_device
from .diagnosis import Finding, looks_off
from .guard import FiniteLoss
from .hooks import LayerStats, tensor_stats
from .interrupt import Interrupted, StopSignal, stops_told
from .learner import Learner
from .losses import TrainingLoss, class_weights, weighted_cross_entropy
from .lr_find import LRCurve
from .memory import GiveBackMemory, keep_freed_memory
from .metrics import Metrics, accuracy, confusion_matrix, f1_macro, f1_scores, perplexity, probabilities
from .params import adam, discriminative, freeze_to, param_groups
from .phases import LOGS, Phase, check_finished, check_resume, run_phases, saved_options, start_over
from .precision import MixedPrecision, Precision, check_precision, pick_precision
from .progress import MetricsLog, Progress
from .regularize import GradientClip, ResetState, RNNRegularizer, activation_reg, temporal_activation_reg
from .schedule import (
    ParamScheduler,
    anneal_cos,
    anneal_exp,
    anneal_linear,
    anneal_no,
    combine_scheds,
    one_cycle,
    slanted_triangular,
)

__all__ = [
    "EVENTS",
    "LOGS",
    "Batch",
    "Batches",
    "Callback",
    "CancelBatch",
    "CancelEpoch",
    "CancelFit",
    "CancelStep",
    "Checkpoint",
    "DebugCallback",
    "Finding",
    "FiniteLoss",
    "FixedBatches",
    "GiveBackMemory",
    "GradientClip",
    "Interrupted",
    "LRCurve",
    "LayerStats",
    "Learner",
    "Metrics",
    "MetricsLog",
    "MixedPrecision",
    "ParamScheduler",
    "Phase",
    "Precision",
    "Progress",
    "RNNRegularizer",
    "ResetState",
    "StopSignal",
    "TrainingLoss",
    "accuracy",
    "activation_reg",
    "adam",
    "anneal_cos",
    "anneal_exp",
    "anneal_linear",
    "anneal_no",
    "check_finished",
    "check_precision",
    "check_resume",
    "class_weights",
    "combine_scheds",
    "confusion_matrix",
    "discriminative",
    "f1_macro",
    "f1_scores",
    "freeze_to",
    "keep_freed_memory",
    "latest_checkpoint",
    "load_checkpoint",
    "looks_off",
    "one_cycle",
    "param_groups",
    "perplexity",
    "pick_device",
    "pick_precision",
    "probabilities",
    "run_phases",
    "save_checkpoint",
    "slanted_triangular",
    "smaller_for_few",
    "saved_options",
    "start_over",
    "stops_told",
    "temporal_activation_reg",
    "tensor_stats",
    "weighted_cross_entropy",
]
