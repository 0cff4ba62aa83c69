"""Floor 0: what users write. The pydantic models of Remit's kinds; the CRDs are generated from them."""
