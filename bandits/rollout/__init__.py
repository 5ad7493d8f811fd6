"""The rollout: a new snapshot serves few users first, more when the evidence says so, and none once it fails.

What serves is said by signed orders that only ever rise (orders.py); a canary also needs a lease of a few seconds.
Who sees it is a hash (slots.py); what is known of it is a fold over the record (evidence.py); what follows is a pure
function (machine.py); every process that serves, and `pilotage watch`, acts on it (controller.py).
"""
