def paths(seeds, only):
    pass
