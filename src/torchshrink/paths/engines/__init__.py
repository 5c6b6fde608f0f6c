"""How the trainings of a path are done: one by one, as stacks of lanes, in other processes. They judge nothing."""
