"""What the speed comparisons are made of: ``timing``, and in ``plain/`` the paths to compare with."""
