"""Images elsewhere: references, credentials, and the client of the OCI distribution-spec that pulls and pushes."""
