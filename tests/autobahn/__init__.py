"""RFC 6455 by the book of Autobahn|Testsuite."""
