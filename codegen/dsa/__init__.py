"""The systolic-array back end."""
