"""A stand-in LND: its gRPC services, TLS, macaroons and invoices, without a Bitcoin network."""
