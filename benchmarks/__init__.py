"""Measurements that the tests leave out: nothing imports them."""
