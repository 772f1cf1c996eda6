"""The dashboard: pages, REST interface, live pictures and metrics of a server's cameras and files."""
