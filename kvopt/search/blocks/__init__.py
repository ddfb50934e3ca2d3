"""Plans of thousands of settings: every layer, or every KV head, is a block with a setting of its own.

What a plan holds, reads and loses are sums over blocks (`objectives.serving.folded`), so that for given prices the best plan is found block by block, exactly,
and the schedule is searched over the sums alone.
"""
