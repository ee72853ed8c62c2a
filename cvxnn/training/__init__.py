"""From data to a certified network: propose, price, choose the strength, train."""
