"""Another activation in a trained network: put in, batch norms re-estimated, annealed and distilled, measured after each step."""

from yolomish.transfer.run import Stage, Transfer, TransferOptions, transfer

__all__ = ["Stage", "Transfer", "TransferOptions", "transfer"]
