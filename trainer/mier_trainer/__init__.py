"""The offline trainer: meta-training and the study of the paper."""
