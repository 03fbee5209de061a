"""Network namespaces: bridge, veth, addresses, firewall."""
