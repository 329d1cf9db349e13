"""Representations: sparse operators, parcel series, flat maps, pFC views."""
