"""Every rule, registered by importing the modules that hold them."""

from jaxprune._channels import evaluate_derivatives as evaluate_derivatives
from jaxprune._channels import evaluate_rules as evaluate_rules
from jaxprune._channels import rules_call as rules_call
from jaxprune._channels import rules_elementwise as rules_elementwise
from jaxprune._channels import rules_lookup as rules_lookup
from jaxprune._channels import rules_read as rules_read
from jaxprune._channels import rules_shape as rules_shape
from jaxprune._channels.flow import RULES as RULES
