"""How to read a report: paragraphs that unfold, as HTML."""

HOW = (
    "<b>Loss</b> is the mean loss without the penalty, so that strengths can be compared. <b>Held-out rows</b> "
    "are those that a fold's models did not train on; every row is held out once in each repeat.",
    "<b>Strength</b> says how hard the penalty pulls. At strength 0, set apart at the left of each picture, there "
    "is no penalty. Each strength is trained from the same beginning, on the same rows.",
    "<b>Best</b> is the strength of least held-out loss. <b>Within one standard error</b> is the strongest whose "
    "loss is not more than one standard error above that: a smaller model, and often a slightly worse one. The "
    "band is ± 1 standard error over the folds.",
    "<b>How sure</b>: in each fold the strength is chosen anew by the other folds' rows, so the interval counts "
    "in that it was chosen. An interval with 0 inside shows no benefit, and is no proof that there is none.",
    "<b>The gap</b> between held-out and training loss is what a model knows of its own rows only.",
    "<b>The optimum</b>: loss and penalty pull every weight in two directions, and where they balance, the model "
    "is where its objective has it. The certificate measures how far from that it is, where it is worst.",
)
