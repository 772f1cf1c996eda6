"""`gpen-stream bench`: what each step of the work costs, against what it replaces."""
