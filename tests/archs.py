"""A variant that has what the published ones have not: two local branches a stage, stages without
one of them, one without the global branch."""

SEVERAL_BRANCHES = dict(
    embed_dims=[16, 32, 48, 64],
    depths=[1, 2, 1, 1],
    num_heads=[4, 4, 6, 8],
    group_splits=[[1, 1, 2], [2, 0, 2], [0, 3, 3], [4, 4, 0]],
    kernel_sizes=[[5, 3], [7, 3], [7, 5], [9, 3]],
    drop_path_rate=0.1,
)
