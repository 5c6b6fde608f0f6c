"""What each tool minimises, set against torchshrink's objective: one entry in `TOOLS` per tool, and nothing else.

An entry says how the tool's own settings become strengths of mean loss + l1·Σ|w| + l2·Σw² + group·Σ√p_g·‖w_g‖
(``read``) and how such strengths become its settings (``write``); `torchshrink.conversions.convert` does the rest. The
mean loss is torch's: ``nn.MSELoss``, which averages over rows and outputs and has no ½, and the log loss averaged over
rows. So a tool that minimises ½·mean squares has its strengths doubled on the way here.
"""

from torchshrink.conversions import glmnet, optimizers, scikit
from torchshrink.conversions.base import FACTS, Loss, Parameter, Strengths, Tool, Values
from torchshrink.errors import NoEquivalentError

TOOLS: dict[str, Tool] = {tool.name: tool for tool in (*optimizers.TOOLS, *scikit.TOOLS, *glmnet.TOOLS)}
REFUSED: dict[str, str] = optimizers.REFUSED  # why nothing converts from or to these

__all__ = ["FACTS", "REFUSED", "TOOLS", "Loss", "NoEquivalentError", "Parameter", "Strengths", "Tool", "Values"]
