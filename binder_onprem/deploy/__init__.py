"""The playbooks for a site of several machines, run by ansible-runner: what they tell, as values; where they are; the run itself."""
