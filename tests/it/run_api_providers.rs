//! What each provider's URLs, headers and options put into a request.
