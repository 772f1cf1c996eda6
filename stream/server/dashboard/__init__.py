"""The dashboard: pages, REST, live pictures and metrics over one supervisor of cameras."""
