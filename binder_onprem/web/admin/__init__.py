"""What administrators see and do: the API beyond the plain lists, the live stream, the page. Everything done is in the audit first."""
