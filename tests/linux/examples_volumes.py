"""What one sees of the examples about volumes: the last lines that their containers print."""

VOLUMES = {
    "downward-api": ['app="web"', 'tier="front"', "downward-api", "32"],
    "projected": ["colour blue 444", "pod/name projected 444", "secret/password open 400"],
    "sub-path": ["hello", "welcome", "db", "html"],
    "sub-path-expr": ["/all/sub-path-expr"],
    "read-only-volumes": ["data", "refused"],
}
