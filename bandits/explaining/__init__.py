"""Explaining: why this model, is it so to the last bit, was anything changed, is all well?"""
