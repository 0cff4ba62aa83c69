"""The traffic switch: which side of a Deployment gets the requests, for targets that have no Service."""
