"""`gpen-stream bench`: the speed of each step, compared with the step that it replaces."""
