"""May it run? Pure: data in, an explained decision out."""
