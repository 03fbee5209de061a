"""What a container description must fulfil before it is built. `config` asks all the others but `host`, which looks at
the host."""
