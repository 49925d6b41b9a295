"""Public data sets: addresses, licences, download and conversion."""
