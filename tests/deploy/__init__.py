"""Files with which the product is deployed."""
