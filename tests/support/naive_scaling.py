"""A step on many machines, walked cycle by cycle: the slow twin of `accel.sim.scaling.scale_step`."""


def walk(compute_cycles, ready, reduce_busy, updates, flag_busy=0, gather_busy=None):
    """Return (end of the step, start and end of each reduction).

    A bucket has an entry in each list: when it is ready, how long it is on the link, how long its updates take and, if the
    update is sharded, how long its new weights are on the link. The flag of a sharded update goes round before the updates.
    """
    cycle, on_link, jobs, reduced = 0, None, [], 0
    while True:  # the backward pass, and the reductions beside it and after it
        if on_link is not None and cycle == on_link[1]:
            jobs.append(on_link)
            on_link, reduced = None, reduced + 1
        while on_link is None and reduced < len(ready) and ready[reduced] <= cycle:
            on_link = (cycle, cycle + reduce_busy[reduced])
            if on_link[0] == on_link[1]:  # one machine: nothing to send
                jobs.append(on_link)
                on_link, reduced = None, reduced + 1
        if cycle >= compute_cycles and reduced == len(ready):
            break
        cycle += 1
    if gather_busy is None:
        return cycle + sum(updates), jobs
    for _ in range(flag_busy):
        cycle += 1
    return _walk_updates(cycle, updates, gather_busy), jobs


def _walk_updates(cycle, updates, gather_busy):
    left = [[update, gather] for update, gather in zip(updates, gather_busy, strict=True)]
    while any(update or gather for update, gather in left):
        sending = next((bucket for bucket in left if bucket[1]), None)
        can_send = sending is not None and not any(bucket[0] for bucket in left[: left.index(sending) + 1])
        updating = next((bucket for bucket in left if bucket[0]), None)
        if can_send:
            sending[1] -= 1
        if updating is not None:
            updating[0] -= 1
        cycle += 1
    return cycle
