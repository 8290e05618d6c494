"""Who holds which samples, and, apart from that, who holds which labels."""
