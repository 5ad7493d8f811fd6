"""Decide, log, learn, evaluate, publish. Begin with types.py, then policy.py and router.py: that is the heart.

The heart, one idea a file:

    types.py errors.py config.py     the nouns, what can go wrong, the one configuration (its parts: settings/)
    policy.py exploration.py         contexts -> probabilities over the allowed arms; scores -> probabilities
    allowing.py served.py arms.py    which arms may be drawn; which policy serves; arms that come and go
    router.py                        scope + context -> decision: allow, distribute, draw, record
    conversation.py signals.py       later turns stay with their arm; what people do when an answer was bad
    rewards.py known.py              outcomes -> reward; what a router knows: what serves, was spent, was learned
    ids.py assignment.py             ids that cannot be forged; who sees what, by hash
    purse.py                         what a router holds for a request, and settles
    home.py durable.py serving.py    where state lies; files that are there or not; a router that serves from there

Below it:   record/ the truth   folds/ how one follows it   money/ pace and caps   features/ request -> context
            settings/ parts of pilotage.toml
By day:     snapshots/ signed policies   rollout/ who is given a new one   experiments/ who sees which variant
            day/ what is learned between nights   monitoring/ has a stream dropped
By night:   warehouse/ the record in columns   learners/ passes over the log   training/ the fold of them
            tuning/ the search   evaluation/ estimators   night/ guard, gate, publish   scheduled/ many nights
Afterwards: what_if/ another policy on the log   explaining/ why, and is it so   privacy/ export and erase
            backups/ keep and bring back   interchange/ files for others   testing/ contracts of ports
"""
